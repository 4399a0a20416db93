"""Pictures of two coloured shapes: their captions, a renderer, and a judge that reads any picture."""

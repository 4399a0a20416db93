"""Pictures: policies are text-to-image pipelines of diffusers."""

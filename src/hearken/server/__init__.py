"""The labelling app and the HTTP API."""

"""The server: an engine that makes pictures for many clients, an HTTP API over it, and a page."""

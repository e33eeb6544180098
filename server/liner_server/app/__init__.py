"""The composition root: the only part that knows every other."""

from liner_server.app.cloud import set_up_cloud
from liner_server.app.service import App, running, serve, work, working

__all__ = ["App", "running", "serve", "set_up_cloud", "work", "working"]

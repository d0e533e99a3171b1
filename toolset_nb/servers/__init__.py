"""Endpoints that answer chat requests.

endpoint: one server over HTTP; kinds: what servers do differently, and finding them; inprocess: llama.cpp's server or
transformers in this process; preflight: what to know about an endpoint before a long run.
"""

from toolset_nb.servers.endpoint import Answer, Endpoint, RequestFailed
from toolset_nb.servers.inprocess import Batches, serve
from toolset_nb.servers.kinds import connect, kinds

__all__ = ["Answer", "Batches", "Endpoint", "RequestFailed", "connect", "kinds", "serve"]

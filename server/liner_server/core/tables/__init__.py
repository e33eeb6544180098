"""Fitted curves; `liner_server.evaluation.fit` writes them."""

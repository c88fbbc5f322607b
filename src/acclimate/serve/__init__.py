"""The state server: one adaptation per stream over one shared source model, over HTTP."""

"""The state server's streams behind other servers. Each file is short and meant to be copied where it does not fit."""

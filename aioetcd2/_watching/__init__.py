"""Keeping watches alive, whatever the API: liveness, buffering endpoints, outages, looks."""

"""One HTTP request to one of several endpoints. This room knows no API: no keys, and no indexes."""

"""ADAPT: the httpx2 client."""

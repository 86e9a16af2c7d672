"""ADAPT: the httpx client."""

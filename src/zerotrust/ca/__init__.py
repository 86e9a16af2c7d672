"""ISSUES. The certificate authority."""

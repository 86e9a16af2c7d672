"""The signed token on every call: WIT, WPT and what they bind."""

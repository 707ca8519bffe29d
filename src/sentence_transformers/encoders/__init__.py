"""The models people instantiate: thin doors on one engine."""

"""Deployment: trained policies as files that run without this library, and as servers."""

"""Claim extraction: the claims that the text of an answer makes."""

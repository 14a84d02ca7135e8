"""From the text of an answer to the claims that it makes."""

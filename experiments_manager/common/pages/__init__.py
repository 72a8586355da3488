"""HTML pages that need no other file: one layout, one style sheet, and what their templates share."""

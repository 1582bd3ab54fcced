"""The page that people read: what was found, how sure it is, and how to make it again, in one file without network."""

"""Web pages that load nothing: the parts of a page, executed notebooks as pages, and the book of them."""

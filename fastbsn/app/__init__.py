"""`fastbsn app`: a page in the browser, served on this machine alone, to choose model and strength by eye."""

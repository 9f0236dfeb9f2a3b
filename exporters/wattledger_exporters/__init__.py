"""What others see of the books: the metrics page, the HTTP server, the reports."""

"""What a run leaves: its numbers, tables and pictures, and the page that shows them."""

"""What app.py shows in the browser: the picker, and what a model says of each picture."""

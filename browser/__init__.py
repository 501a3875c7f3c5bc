"""The page of app.py: the picker, and a card per image."""

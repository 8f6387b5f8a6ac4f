"""What the results say: numbers, tables, figures, galleries and the card of a folder."""

"""What runs show: comparisons between arms, tables, figures and the HTML page. No torch."""

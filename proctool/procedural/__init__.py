"""Data from rules: tasks, streams and the files they fill. numpy only; importing it never imports torch."""

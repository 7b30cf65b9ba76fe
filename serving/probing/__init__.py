"""Questions with known answers, and the verdict on a server's answers."""

"""Every command, with hostile names in each place where it reads foreign text: no line of its output steers a terminal or is forged."""

"""The commands of the command line that need a server or start one."""

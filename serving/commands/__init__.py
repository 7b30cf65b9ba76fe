"""The commands that call a model server or start one."""

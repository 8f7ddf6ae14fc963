"""The programs that the tour copies out and runs: as a user writes them, so they `import chainrule as cr`."""

"""The commands of `liner-server`; what is heavy is imported only by the command that needs it."""

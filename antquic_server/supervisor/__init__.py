"""The parent process: owns the sockets, keeps one worker per slot alive."""

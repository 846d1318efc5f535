"""Everything that becomes a Serve replica, and what runs inside one."""

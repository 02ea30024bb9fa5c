"""What carries attempts out: `ssh` on hosts of one's own. They report facts and decide nothing."""

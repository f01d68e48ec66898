"""Runs: linear programs from data to report, one file each. Fork one rather than add a switch."""

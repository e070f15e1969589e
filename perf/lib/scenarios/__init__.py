"""The scenarios: `compared` sets gateways side by side; the others ask one question each of ours."""

"""Drivers of the two programs that make and prepare machines: Terraform and Ansible."""

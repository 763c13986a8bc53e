output "hosts" {
  description = "What every target gives: the hosts, ready to be configured"
  value       = [terraform_data.host.output.host]
}

# The machine that the platform runs on. Nothing is made; what was asked for is in the state, as on
# every other target, so that the same steps run and release finds something to release.

resource "terraform_data" "host" {
  input = {
    name   = var.name
    labels = var.labels
    host = {
      address      = "127.0.0.1"
      port         = 22
      user         = var.user
      python       = coalesce(var.python, "/usr/bin/python3")
      connection   = "local"
      accelerators = [for _ in range(var.gpus) : "nvidia"]
      hourly_cost  = 0
    }
  }
}

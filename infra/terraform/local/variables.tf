# Every target takes these variables; docs: tracklayer/targets/outputs.py and the test of the roots.

variable "name" {
  description = "Name of what is made, unique to the project and the step"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,62}$", var.name))
    error_message = "A name begins with a letter; small letters, digits and dashes follow, 63 characters at most."
  }
}

variable "labels" {
  description = "Put on everything that is made: project, run, step"
  type        = map(string)
  default     = {}
}

variable "replicas" {
  description = "How many hosts"
  type        = number
  default     = 1

  validation {
    condition     = var.replicas == 1
    error_message = "The local target is one host: the machine that the platform runs on."
  }
}

variable "cpus" {
  description = "Processor cores a host must have"
  type        = number
  default     = 1

  validation {
    condition     = var.cpus > 0
    error_message = "A host needs a processor."
  }
}

variable "memory" {
  description = "Main memory a host must have, in bytes"
  type        = number
  default     = 0

  validation {
    condition     = var.memory >= 0
    error_message = "Memory is a number of bytes."
  }
}

variable "disk" {
  description = "Disk space a host must have free, in bytes"
  type        = number
  default     = 0

  validation {
    condition     = var.disk >= 0
    error_message = "Disk space is a number of bytes."
  }
}

variable "gpus" {
  description = "Accelerators a host must have"
  type        = number
  default     = 0

  validation {
    condition     = var.gpus >= 0 && floor(var.gpus) == var.gpus
    error_message = "Accelerators are counted in whole numbers."
  }
}

variable "user" {
  description = "Who logs in to the hosts; null: whoever the target has"
  type        = string
  default     = null
}

variable "python" {
  description = "Path of the Python interpreter on the hosts; null: the one the target has"
  type        = string
  default     = null
}

variable "operator_cidrs" {
  description = "From where you log in, as CIDR blocks: your own address with /32. Nobody else reaches the machine."
  type        = list(string)

  validation {
    condition     = length(var.operator_cidrs) > 0 && alltrue([for each in var.operator_cidrs : can(cidrnetmask(each)) && tonumber(split("/", each)[1]) >= 16])
    error_message = "Name at least one IPv4 block, none wider than /16: 0.0.0.0/0 would let everybody try."
  }
}

variable "public_key_file" {
  description = "The public half of the key that you log in with. The private half never leaves your machine."
  type        = string
  default     = "~/.ssh/id_ed25519.pub"
}

variable "name" {
  description = "What the instance and all that belongs to it is called."
  type        = string
  default     = "alpha-kite"
}

variable "region" {
  description = "Where it runs; us-east-1 is nearest to the market and to most Supabase projects that follow it."
  type        = string
  default     = "us-east-1"
}

variable "bundle" {
  description = "Its size: nano_3_0 (512 MB) for the profile nano, micro_3_0 (1 GB), small_3_0 (2 GB) with Postgres and monitoring."
  type        = string
  default     = "nano_3_0"

  validation {
    condition     = contains(["nano_3_0", "micro_3_0", "small_3_0", "medium_3_0"], var.bundle)
    error_message = "Name one of nano_3_0, micro_3_0, small_3_0, medium_3_0."
  }
}

variable "snapshot_time" {
  description = "When Lightsail takes its daily snapshot, UTC, a full hour: while the market is closed."
  type        = string
  default     = "08:00"
}

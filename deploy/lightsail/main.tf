# One Lightsail instance for deploy.sh: a fixed address, ssh from the operator's address, and nothing
# else that can be reached. The page comes through an ssh tunnel. docs/guides/deploy.md says it word by
# word. No secret is in here, nor in Terraform's state.

resource "aws_lightsail_key_pair" "operator" {
  name       = var.name
  public_key = file(pathexpand(var.public_key_file))
}

resource "aws_lightsail_instance" "kite" {
  name              = var.name
  availability_zone = "${var.region}a"
  blueprint_id      = "debian_12"
  bundle_id         = var.bundle
  key_pair_name     = aws_lightsail_key_pair.operator.name
  # An address of the other kind would need rules of its own.
  ip_address_type = "ipv4"

  # The whole disk, kept for seven days.
  add_on {
    type          = "AutoSnapshot"
    snapshot_time = var.snapshot_time
    status        = "Enabled"
  }

  lifecycle {
    # The disk goes with the instance, and the streams with the disk.
    prevent_destroy = true
    # A newer image must not replace a machine that runs; security updates install themselves.
    ignore_changes = [blueprint_id]
  }
}

resource "aws_lightsail_static_ip" "kite" {
  name = var.name
}

resource "aws_lightsail_static_ip_attachment" "kite" {
  static_ip_name = aws_lightsail_static_ip.kite.name
  instance_name  = aws_lightsail_instance.kite.name
}

# These are all the rules: Lightsail's own, which let everybody to 22 and 80, are replaced by them.
resource "aws_lightsail_instance_public_ports" "kite" {
  instance_name = aws_lightsail_instance.kite.name

  port_info {
    protocol  = "tcp"
    from_port = 22
    to_port   = 22
    cidrs     = var.operator_cidrs
  }
}

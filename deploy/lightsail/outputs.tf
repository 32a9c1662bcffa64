output "host" {
  description = "What deploy.sh takes as HOST."
  value       = "${aws_lightsail_instance.kite.username}@${aws_lightsail_static_ip.kite.ip_address}"
}

output "tunnel" {
  description = "Brings the page to http://127.0.0.1:8080 on your machine."
  value       = "ssh -N -L 8080:127.0.0.1:8080 ${aws_lightsail_instance.kite.username}@${aws_lightsail_static_ip.kite.ip_address}"
}

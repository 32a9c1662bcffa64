"""What an operator deploys: container, server and database definitions, and their generators."""

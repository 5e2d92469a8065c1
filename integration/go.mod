module datasync/integration

go 1.26.0

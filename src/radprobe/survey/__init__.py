"""What `radprobe init` sees in a folder of images: files, tables, labels, patients and parts, and what is doubtful."""

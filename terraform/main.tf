# Three buckets, a role that runs the pipeline, one that reads, and Athena's database. A sketch: read it before
# applying it. Set `name`, and let the principals of the roles be yours.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "name" {
  description = "Begins the buckets' names: <name>-raw, <name>-curated, <name>-analytics"
  type        = string
  default     = "acme-gmv"
}

variable "runs_on" {
  description = "Service that runs the pipeline, which may assume its role"
  type        = string
  default     = "ec2.amazonaws.com"
}

variable "reader_account" {
  description = "Account whose people may assume the reader's role"
  type        = string
}

locals {
  zones    = toset(["raw", "curated", "analytics"])
  written  = ["raw/lake", "curated/lake", "analytics/lake", "analytics/runs", "analytics/export"]
  read     = ["curated/lake", "analytics/lake", "analytics/runs", "analytics/export"]
  to_write = [for place in local.written : "arn:aws:s3:::${var.name}-${place}/*"]
  to_read  = [for place in local.read : "arn:aws:s3:::${var.name}-${place}/*"]
}

resource "aws_s3_bucket" "zone" {
  for_each = local.zones
  bucket   = "${var.name}-${each.key}"
}

resource "aws_s3_bucket_public_access_block" "zone" {
  for_each                = aws_s3_bucket.zone
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "zone" {
  for_each = aws_s3_bucket.zone
  bucket   = each.value.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "zone" {
  for_each = aws_s3_bucket.zone
  bucket   = each.value.id
  rule {
    id     = "forget-what-was-replaced"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 35
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }
}

data "aws_iam_policy_document" "pipeline" {
  statement {
    sid       = "ListBuckets"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [for bucket in aws_s3_bucket.zone : bucket.arn]
  }
  statement {
    sid       = "ReadLanding"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.zone["raw"].arn}/landing/*"]
  }
  statement {
    sid       = "WriteLakeRunsAndExport"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = local.to_write
  }
}

data "aws_iam_policy_document" "pipeline_principal" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = [var.runs_on]
    }
  }
}

resource "aws_iam_role" "pipeline" {
  name               = "${var.name}-pipeline"
  assume_role_policy = data.aws_iam_policy_document.pipeline_principal.json
}

resource "aws_iam_instance_profile" "pipeline" {
  name = "${var.name}-pipeline"
  role = aws_iam_role.pipeline.name
}

resource "aws_iam_role_policy" "pipeline" {
  name   = "s3"
  role   = aws_iam_role.pipeline.id
  policy = data.aws_iam_policy_document.pipeline.json
}

data "aws_iam_policy_document" "reader" {
  statement {
    sid       = "ListBuckets"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.zone["curated"].arn, aws_s3_bucket.zone["analytics"].arn]
  }
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = local.to_read
  }
}

data "aws_iam_policy_document" "reader_principal" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = [var.reader_account]
    }
  }
}

resource "aws_iam_role" "reader" {
  name               = "${var.name}-reader"
  assume_role_policy = data.aws_iam_policy_document.reader_principal.json
}

resource "aws_iam_role_policy" "reader" {
  name   = "s3"
  role   = aws_iam_role.reader.id
  policy = data.aws_iam_policy_document.reader.json
}

data "aws_iam_policy_document" "queries" {
  statement {
    sid     = "Catalog"
    actions = ["glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:GetPartition", "glue:GetPartitions"]
    resources = [
      aws_glue_catalog_database.gmv.arn,
      replace(aws_glue_catalog_database.gmv.arn, "database/gmv", "catalog"),
      replace(aws_glue_catalog_database.gmv.arn, "database/gmv", "table/gmv/*"),
    ]
  }
  statement {
    sid = "Query"
    actions = [
      "athena:StartQueryExecution",
      "athena:GetQueryExecution",
      "athena:GetQueryResults",
      "athena:StopQueryExecution",
      "athena:GetWorkGroup",
    ]
    resources = [aws_athena_workgroup.gmv.arn]
  }
  statement {
    sid       = "QueryResults"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.zone["analytics"].arn}/athena-results/*"]
  }
}

resource "aws_iam_role_policy" "queries" {
  name   = "queries"
  role   = aws_iam_role.reader.id
  policy = data.aws_iam_policy_document.queries.json
}

resource "aws_glue_catalog_database" "gmv" {
  name = "gmv"
}

resource "aws_athena_workgroup" "gmv" {
  name = "gmv"
  configuration {
    bytes_scanned_cutoff_per_query = 10737418240
    result_configuration {
      output_location = "s3://${var.name}-analytics/athena-results/"
    }
  }
}

output "lake" {
  description = "GMV_LAKE of the pipeline"
  value       = "s3://${var.name}-{zone}/lake"
}

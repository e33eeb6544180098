#!/usr/bin/env bash
# Accounts and rights of Liner in Google Cloud: one account a part, each with what it needs, on the
# resource it needs it on. Run it once the resources exist (`liner-server setup-cloud`, a bucket, a
# dataset, the secrets); run it again as often as you like.
#
#   PROJECT=my-project REGION=europe-west1 BUCKET=my-project-liner deployment/setup-iam.sh
#
# DRY_RUN=1 prints the commands in place of running them. GKE=1 lets the Kubernetes accounts of
# deployment/kubernetes/serviceaccounts.yaml (NAMESPACE, "default") stand for these. PAUSE=1 lets the
# server pause the queue, which makes and deletes a topic and so needs more than anything else here.
set -euo pipefail

: "${PROJECT:?the project}" "${REGION:?the region of Cloud Run}" "${BUCKET:?the bucket of objects}"
TOPIC="${PUBSUB_TOPIC:-ai-processing}"
SUBSCRIPTION="${PUBSUB_SUBSCRIPTION:-ai-processor}"
DATASET="${BIGQUERY_DATASET:-ai_metrics}"
NAMESPACE="${NAMESPACE:-default}"

run() {
  if [ -n "${DRY_RUN:-}" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

account() { echo "$1@$PROJECT.iam.gserviceaccount.com"; }

create() { # NAME, what it is for
  if [ -z "${DRY_RUN:-}" ] && gcloud iam service-accounts describe "$(account "$1")" \
    --project "$PROJECT" >/dev/null 2>&1; then return; fi
  run gcloud iam service-accounts create "$1" --project "$PROJECT" --display-name "$2"
}

topic() { # ACCOUNT ROLE WORD...
  local member=$1 role=$2; shift 2
  for word in "$@"; do
    run gcloud pubsub topics add-iam-policy-binding "$TOPIC-$word" --project "$PROJECT" \
      --member "serviceAccount:$member" --role "$role"
  done
}

subscription() { # ACCOUNT ROLE WORD...
  local member=$1 role=$2; shift 2
  for word in "$@"; do
    run gcloud pubsub subscriptions add-iam-policy-binding "$SUBSCRIPTION-$word" \
      --project "$PROJECT" --member "serviceAccount:$member" --role "$role"
  done
}

bucket() { # ACCOUNT ROLE
  run gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" \
    --member "serviceAccount:$1" --role "$2"
}

dataset() { # ACCOUNT ROLE: rights on one dataset are granted by SQL
  run bq query --project_id "$PROJECT" --use_legacy_sql=false \
    "GRANT \`$2\` ON SCHEMA \`$PROJECT\`.\`$DATASET\` TO 'serviceAccount:$1'"
}

secret() { # ACCOUNT NAME...
  local member=$1; shift
  for name in "$@"; do
    run gcloud secrets add-iam-policy-binding "$name" --project "$PROJECT" \
      --member "serviceAccount:$member" --role roles/secretmanager.secretAccessor
  done
}

# -- The server: submits jobs, takes in results and dead letters, stores and signs objects -------
create liner-server "Liner: gRPC server"
server=$(account liner-server)
topic "$server" roles/pubsub.publisher high medium low
subscription "$server" roles/pubsub.subscriber high medium low dead-letter results
# It looks whether everything is there at its start, and whether the queue is paused.
run gcloud projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$server" \
  --role roles/pubsub.viewer --condition None
if [ -n "${PAUSE:-}" ]; then
  if [ -n "${DRY_RUN:-}" ] || ! gcloud iam roles describe linerQueuePauser --project "$PROJECT" \
    >/dev/null 2>&1; then
    run gcloud iam roles create linerQueuePauser --project "$PROJECT" --title "Liner: pause" \
      --permissions pubsub.topics.create,pubsub.topics.delete
  fi
  run gcloud projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$server" \
    --role "projects/$PROJECT/roles/linerQueuePauser" --condition None
fi
bucket "$server" roles/storage.objectUser
# Signed URLs are signed by the account itself.
run gcloud iam service-accounts add-iam-policy-binding "$server" --project "$PROJECT" \
  --member "serviceAccount:$server" --role roles/iam.serviceAccountTokenCreator
dataset "$server" roles/bigquery.dataEditor
# Reports and guardrails are queries, which are jobs of the project.
run gcloud projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$server" \
  --role roles/bigquery.jobUser --condition None
secret "$server" liner-tokens liner-openai-api-key

# -- Workers: take jobs, read audio, store results, publish them, dead letters and what is given back
create liner-worker "Liner: queue workers"
worker=$(account liner-worker)
subscription "$worker" roles/pubsub.subscriber high medium low
topic "$worker" roles/pubsub.publisher high medium low dead-letter results
run gcloud projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$worker" \
  --role roles/pubsub.viewer --condition None
bucket "$worker" roles/storage.objectUser
dataset "$worker" roles/bigquery.dataEditor
# Changes of experiments' shares are read, by queries, in every process.
run gcloud projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$worker" \
  --role roles/bigquery.jobUser --condition None
secret "$worker" liner-tokens liner-openai-api-key

# -- Retention: lists and deletes objects, nothing else ---------------------------------------------
create liner-cleanup "Liner: retention"
bucket "$(account liner-cleanup)" roles/storage.objectUser

# -- Pub/Sub's own account: its dead-letter policy forwards for us --------------------------------
if [ -n "${DRY_RUN:-}" ]; then number=PROJECT_NUMBER; else
  number=$(gcloud projects describe "$PROJECT" --format 'value(projectNumber)')
fi
pubsub="service-$number@gcp-sa-pubsub.iam.gserviceaccount.com"
topic "$pubsub" roles/pubsub.publisher dead-letter
subscription "$pubsub" roles/pubsub.subscriber high medium low

# -- Cloud Scheduler starts the retention job at midnight -----------------------------------------
create liner-scheduler "Liner: starts retention"
scheduler=$(account liner-scheduler)
run gcloud run jobs add-iam-policy-binding file-cleanup --project "$PROJECT" --region "$REGION" \
  --member "serviceAccount:$scheduler" --role roles/run.invoker
run gcloud scheduler jobs create http file-cleanup --project "$PROJECT" --location "$REGION" \
  --schedule "0 0 * * *" --time-zone Etc/UTC --http-method POST \
  --uri "https://run.googleapis.com/v2/projects/$PROJECT/locations/$REGION/jobs/file-cleanup:run" \
  --oauth-service-account-email "$scheduler" \
  || echo "The schedule exists already; change it with: gcloud scheduler jobs update http" >&2

# -- GKE: pods are these accounts by Workload Identity --------------------------------------------
if [ -n "${GKE:-}" ]; then
  for name in liner-server liner-worker liner-cleanup; do
    run gcloud iam service-accounts add-iam-policy-binding "$(account "$name")" \
      --project "$PROJECT" --role roles/iam.workloadIdentityUser \
      --member "serviceAccount:$PROJECT.svc.id.goog[$NAMESPACE/$name]"
  done
fi

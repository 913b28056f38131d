{{/* Names */}}

{{- define "pricebook.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{/* Never cut: a name that is too long is refused (see _validate.tpl), since two cut names may be the same. */}}
{{- define "pricebook.fullname" -}}
{{- $name := include "pricebook.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name -}}
{{- end -}}
{{- end -}}

{{- define "pricebook.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "pricebook.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "pricebook.image" -}}
{{- $tag := .image.tag | default .defaultTag -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository $tag -}}
{{- end -}}
{{- end -}}

{{- define "pricebook.serverImage" -}}
{{- include "pricebook.image" (dict "image" .Values.image "defaultTag" .Chart.AppVersion) -}}
{{- end -}}

{{/*
Labels. A component other than the service has a name of its own, so that the two labels of a selector are enough and
`app.kubernetes.io/name=pricebook` never means a database.
Call with (dict "root" $ "component" "server" | "database" | "test").
*/}}

{{- define "pricebook.selectorLabels" -}}
{{- $name := include "pricebook.name" .root -}}
{{- if ne .component "server" -}}{{- $name = printf "%s-%s" $name .component -}}{{- end -}}
app.kubernetes.io/name: {{ $name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{/* The chart's own labels win over commonLabels: a changed selector would lose the pods. */}}
{{- define "pricebook.podLabels" -}}
{{- $own := include "pricebook.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/component" .component -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "pricebook" -}}
{{- toYaml (merge $own (.root.Values.commonLabels | default dict)) -}}
{{- end -}}

{{- define "pricebook.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- toYaml (merge $own (include "pricebook.podLabels" . | fromYaml)) -}}
{{- end -}}

{{/*
The whole metadata of an object. In a namespace that releases share, its name begins with that of the release's.
Call with (dict "root" $ "name" "..." ["component" ...] ["namespace" ...] ["labels" dict] ["annotations" dict]).
*/}}
{{- define "pricebook.metadata" -}}
{{- $labels := include "pricebook.labels" (dict "root" .root "component" (.component | default "server")) | fromYaml -}}
{{- $annotations := merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) -}}
{{- $namespace := .namespace | default .root.Release.Namespace -}}
name: {{ ternary .name (printf "%s-%s" .root.Release.Namespace .name) (eq $namespace .root.Release.Namespace) }}
namespace: {{ $namespace }}
labels:
  {{- toYaml (merge $labels (.labels | default dict)) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Numbers: YAML gives every number as a float, which a template would print as 1.048576e+06. */}}
{{- define "pricebook.number" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{- printf "%d" (int64 .) -}}{{- else -}}{{- printf "%v" . -}}{{- end -}}
{{- end -}}

{{/* The fewest and the most pods that there may be. */}}
{{- define "pricebook.scale" -}}
{{- $scale := dict "min" .Values.replicas "max" .Values.replicas "by" "replicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- $scale = dict "min" .Values.autoscaling.minReplicas "max" .Values.autoscaling.maxReplicas "by" "autoscaling.maxReplicas" -}}
{{- else if .Values.keda.enabled -}}
{{- $scale = dict "min" .Values.keda.minReplicas "max" .Values.keda.maxReplicas "by" "keda.maxReplicas" -}}
{{- end -}}
{{- toYaml $scale -}}
{{- end -}}

{{/*
The Deployment's replicas: left to an autoscaler where there is one. But as long as Helm itself owns the field in the
cluster, that is until an autoscaler first changes it, leaving it out would reset the Deployment to one pod; so the number
that runs is repeated. That helps with server-side apply only: a client-side one would reset the field at the upgrade after.
*/}}
{{- define "pricebook.replicas" -}}
{{- if not (or .Values.autoscaling.enabled .Values.keda.enabled) -}}
{{- include "pricebook.number" .Values.replicas -}}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "pricebook.fullname" .) | default dict -}}
{{- $owned := false -}}
{{- range dig "metadata" "managedFields" list $live -}}
{{- if and (eq .operation "Apply") (hasKey (dig "f:spec" dict .fieldsV1) "f:replicas") -}}{{- $owned = true -}}{{- end -}}
{{- end -}}
{{- if $owned -}}{{- include "pricebook.number" $live.spec.replicas -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Seconds that a clean stop may take: see docs/operate.md. */}}
{{- define "pricebook.stopSeconds" -}}
{{- add .Values.preStopSeconds (ceil .Values.config.drainSeconds) .Values.config.gracefulTimeoutSeconds 10 -}}
{{- end -}}

{{/*
Generated passwords are read back from the cluster at an upgrade, and stay the same within one rendering.
Call with (dict "root" $ "secret" "name" "key" "key" ["given" "value"]).
*/}}
{{- define "pricebook.password" -}}
{{- $root := .root -}}
{{- if .given -}}
{{- .given -}}
{{- else -}}
{{- if not (hasKey $root.Values "_generated") -}}{{- $_ := set $root.Values "_generated" dict -}}{{- end -}}
{{- $id := printf "%s/%s" .secret .key -}}
{{- if not (hasKey $root.Values._generated $id) -}}
{{- $found := lookup "v1" "Secret" $root.Release.Namespace .secret | default dict -}}
{{- $old := dig "data" .key "" $found | b64dec -}}
{{- $_ := set $root.Values._generated $id ($old | default (randAlphaNum 48)) -}}
{{- end -}}
{{- index $root.Values._generated $id -}}
{{- end -}}
{{- end -}}

{{- define "pricebook.secretKeySecret" -}}
{{- .Values.secretKey.existingSecret | default (include "pricebook.fullname" .) -}}
{{- end -}}

{{- define "pricebook.adminKeySecret" -}}
{{- .Values.adminKey.existingSecret | default (include "pricebook.secretKeySecret" .) -}}
{{- end -}}

{{/* Not empty if the admin key is generated, along with the secret key. */}}
{{- define "pricebook.generatesAdminKey" -}}
{{- if and .Values.adminKey.enabled (not .Values.adminKey.existingSecret) (not .Values.secretKey.existingSecret) -}}true{{- end -}}
{{- end -}}

{{/* The admin key, which may be missing in a Secret that was not made for it. */}}
{{- define "pricebook.adminKeyEnv" -}}
{{- if .Values.adminKey.enabled -}}
- name: ADMIN_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "pricebook.adminKeySecret" . }}
      key: {{ .Values.adminKey.key }}
      {{- if not .Values.adminKey.existingSecret }}
      optional: true
      {{- end }}
{{- end -}}
{{- end -}}

{{/*
The database
How serving, migrating and reading from a replica reach it, by mode: url (of a Secret), or host, port, user, name and the
password's Secret. What port is in such a URL is not known, and external.port stands for it where a policy needs one. Without
a replica `read` is empty.
*/}}

{{- define "pricebook.owner" -}}pricebook{{- end -}}
{{- define "pricebook.servingRole" -}}pricebook_serving{{- end -}}

{{- define "pricebook.database" -}}
{{- $fullname := include "pricebook.fullname" . -}}
{{- $serve := dict -}}
{{- $migrate := dict -}}
{{- $read := dict -}}
{{- $servingRole := include "pricebook.servingRole" . -}}
{{- if eq .Values.database.mode "bundled" -}}
{{- $host := printf "%s-postgres" $fullname -}}
{{- $secret := .Values.database.bundled.existingSecret | default $host -}}
{{- $serve = dict "host" $host "port" 5432 "name" "pricebook" "user" $servingRole "secret" $secret "key" "serving-password" -}}
{{- $migrate = merge (dict "user" (include "pricebook.owner" .) "key" "owner-password") $serve -}}
{{- else if eq .Values.database.mode "cnpg" -}}
{{- $cluster := printf "%s-db" $fullname -}}
{{- $direct := printf "%s-rw" $cluster -}}
{{- $host := ternary (printf "%s-pooler" $fullname) $direct .Values.database.cnpg.pooler.enabled -}}
{{- $secret := .Values.database.cnpg.servingSecret | default (printf "%s-serving" $fullname) -}}
{{- $serve = dict "host" $host "port" 5432 "name" "pricebook" "user" $servingRole "secret" $secret "key" "password" -}}
{{- $migrate = merge (dict "host" $direct "user" (include "pricebook.owner" .) "secret" (printf "%s-app" $cluster)) $serve -}}
{{- if .Values.database.cnpg.readReplicas -}}{{- $read = merge (dict "host" (printf "%s-ro" $cluster)) $serve -}}{{- end -}}
{{- else -}}
{{- $external := .Values.database.external -}}
{{- $own := $external.migration -}}
{{- $replica := dict "port" ($external.read.port | default $external.port) -}}
{{- if $external.host -}}
{{- $serve = dict "host" $external.host "port" $external.port "name" $external.name "user" $external.user "secret" $external.existingSecret "key" $external.passwordKey "sslMode" $external.sslMode -}}
{{- $migrate = $serve -}}
{{- if $own.existingSecret -}}
{{- $migrate = merge (dict "host" ($own.host | default $external.host) "port" ($own.port | default $external.port) "user" $own.user "secret" $own.existingSecret "key" $own.passwordKey) $serve -}}
{{- end -}}
{{- $servingRole = $external.servingRole | default $external.user -}}
{{- with $external.read.host -}}{{- $read = merge (dict "host" .) $replica $serve -}}{{- end -}}
{{- else -}}
{{- $serve = dict "secret" $external.existingSecret "urlKey" $external.urlKey "port" $external.port -}}
{{- $migrate = $serve -}}
{{- if $own.existingSecret -}}
{{- $migrate = merge (dict "secret" $own.existingSecret "urlKey" $own.urlKey "port" ($own.port | default $external.port)) $serve -}}
{{- end -}}
{{- $servingRole = $external.servingRole -}}
{{- with $external.read.urlKey -}}{{- $read = merge (dict "urlKey" .) $replica $serve -}}{{- end -}}
{{- end -}}
{{- if not $own.existingSecret -}}{{- $servingRole = "" -}}{{- end -}}
{{- end -}}
{{- toYaml (dict "serve" $serve "migrate" $migrate "read" $read "servingRole" $servingRole) -}}
{{- end -}}

{{/* The variable with an address. Call with (dict "name" "DATABASE_URL" "database" dict). */}}
{{- define "pricebook.databaseUrlEnv" -}}
{{- with .database -}}
- name: {{ $.name }}
{{- if .urlKey }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .urlKey }}
{{- else }}
  value: {{ printf "postgresql://%s@%s:%s/%s%s" .user .host (include "pricebook.number" .port) .name (ternary (printf "?sslmode=%s" .sslMode) "" (not (empty .sslMode))) | quote }}
{{- end }}
{{- end -}}
{{- end -}}

{{/*
The chart's own variables. A password goes as PGPASSWORD, which the driver reads itself: written into the URL it would have
to be percent-encoded, which no Secret does.
Call with (dict "root" $ "as" "serve" | "migrate").
*/}}
{{- define "pricebook.ownEnv" -}}
{{- $ways := include "pricebook.database" .root | fromYaml -}}
{{- $database := index $ways .as -}}
{{- if not $database.urlKey -}}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $database.secret }}
      key: {{ $database.key }}
{{- end }}
{{ include "pricebook.databaseUrlEnv" (dict "name" "DATABASE_URL" "database" $database) }}
{{- if eq .as "serve" }}
{{- with $ways.read }}
{{ include "pricebook.databaseUrlEnv" (dict "name" "DATABASE_READ_URL" "database" .) }}
{{- end }}
- name: SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "pricebook.secretKeySecret" .root }}
      key: {{ .root.Values.secretKey.key }}
- name: SECRET_KEY_PREVIOUS
  valueFrom:
    secretKeyRef:
      name: {{ include "pricebook.secretKeySecret" .root }}
      key: {{ .root.Values.secretKey.previousKey }}
      optional: true
{{- with include "pricebook.adminKeyEnv" .root }}
{{ . }}
{{- end }}
{{- else if $ways.servingRole }}
- name: SERVING_ROLE
  value: {{ $ways.servingRole }}
{{- end }}
{{- if .root.Values.tracing.enabled }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
{{- end -}}

{{/*
All variables of a container. Server-side apply refuses a name that occurs twice, so one of extraEnv replaces the chart's.
$(NAME) means a variable further up: extraEnv may refer to the chart's own, and the resource's attributes to either.
Call with (dict "root" $ "as" "serve" | "migrate").
*/}}
{{- define "pricebook.env" -}}
{{- $extra := .root.Values.extraEnv | default list -}}
{{- $given := list -}}
{{- range $extra -}}{{- $given = append $given .name -}}{{- end -}}
{{- $env := list -}}
{{- range include "pricebook.ownEnv" . | fromYamlArray -}}
{{- if not (has .name $given) -}}{{- $env = append $env . -}}{{- end -}}
{{- end -}}
{{- $env = concat $env $extra -}}
{{- $attributes := "OTEL_RESOURCE_ATTRIBUTES" -}}
{{- if and .root.Values.tracing.enabled (not (has $attributes $given)) -}}
{{- $env = append $env (dict "name" $attributes "value" (printf "k8s.namespace.name=%s,k8s.deployment.name=%s,k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)" .root.Release.Namespace (include "pricebook.fullname" .root))) -}}
{{- end -}}
{{- toYaml $env -}}
{{- end -}}

{{- define "pricebook.envFrom" -}}
- configMapRef:
    name: {{ include "pricebook.fullname" . }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pricebook.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSizeLimit }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pricebook.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What all pods of the application's own image have in common. */}}
{{- define "pricebook.podSpec" -}}
serviceAccountName: {{ include "pricebook.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What all containers of the application's own image have in common. */}}
{{- define "pricebook.containerSpec" -}}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- include "pricebook.volumeMounts" . | nindent 2 }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Rules between values. Each sentence names the value, the limit and the remedy; all that are broken are said at once.
What one value alone may be is in values.schema.json. tests/chart/messages.yaml has every sentence.
*/}}
{{- define "pricebook.validate" -}}
{{- $faults := list -}}
{{- $database := .Values.database -}}
{{- $scale := include "pricebook.scale" . | fromYaml -}}

{{- $fullname := include "pricebook.fullname" . -}}
{{- if gt (len $fullname) 43 -}}
{{- $faults = append $faults (printf "The name %s has %d characters, and Kubernetes leaves 43 to it once -postgres and a hash follow; set fullnameOverride to a shorter one." $fullname (len $fullname)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) -}}
{{- $faults = append $faults (printf "The name %s is not a valid name of a Service: lower-case letters, digits and -, after a letter; set fullnameOverride to one that is." $fullname) -}}
{{- end -}}
{{- $name := include "pricebook.name" . -}}
{{- if gt (len $name) 54 -}}
{{- $faults = append $faults (printf "nameOverride %s has %d characters, and a label leaves 54 to it once -postgres follows; shorten it." $name (len $name)) -}}
{{- end -}}

{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- $faults = append $faults "autoscaling.enabled and keda.enabled are both true, and a Deployment takes one autoscaler; turn one of them off." -}}
{{- end -}}
{{- range $name := list "autoscaling" "keda" -}}
{{- with index $.Values $name -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- $faults = append $faults (printf "%s.minReplicas is %d, above %s.maxReplicas %d; raise the second or lower the first." $name (int .minReplicas) $name (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or .Values.autoscaling.enabled (and .Values.keda.enabled .Values.keda.cpu.enabled) -}}
{{- if not (dig "requests" "cpu" "" .Values.resources) -}}
{{- $faults = append $faults "The autoscaler aims at a share of resources.requests.cpu, which is not set; set it, or scale by another metric of keda." -}}
{{- end -}}
{{- end -}}
{{- with .Values.keda -}}
{{- if .enabled -}}
{{- if not (or .cpu.enabled .prometheus.requestRate.enabled .prometheus.inFlight.enabled .extraTriggers) -}}
{{- $faults = append $faults "keda.enabled is true without any trigger; turn on keda.cpu, keda.prometheus.requestRate or keda.prometheus.inFlight." -}}
{{- end -}}
{{- if and (or .prometheus.requestRate.enabled .prometheus.inFlight.enabled) (not .prometheus.serverAddress) -}}
{{- $faults = append $faults "A trigger of keda.prometheus is on, but keda.prometheus.serverAddress is empty; set it to your Prometheus, such as http://prometheus.monitoring:9090." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $names := list -}}
{{- range .Values.extraEnv -}}
{{- if has .name $names -}}
{{- $faults = append $faults (printf "extraEnv names %s twice, which Kubernetes refuses; leave one of them out." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}

{{- $min := int $scale.min -}}
{{- with .Values.podDisruptionBudget -}}
{{- if and .enabled (gt $min 1) (ge (int .maxUnavailable) $min) -}}
{{- $faults = append $faults (printf "podDisruptionBudget.maxUnavailable is %d, and as few as %d pods may run, so all could be taken away at once; lower it to at most %d." (int .maxUnavailable) $min (sub $min 1)) -}}
{{- end -}}
{{- end -}}

{{/*
Connections. Beside the pods and those that a rolling update starts, there are those that terminate: they do not count
against maxSurge, so the next batch starts, 5 seconds at the least until it is ready, while they wait, drain and, for some
2 seconds, close their connections. Each has three pools, and one connection that follows the feed.
*/}}
{{- $max := int $scale.max -}}
{{- $surge := include "pricebook.surge" (dict "maxSurge" .Values.maxSurge "replicas" $max) | int -}}
{{- $pool := int .Values.config.databasePoolSize -}}
{{- $batches := divf (addf .Values.preStopSeconds .Values.config.drainSeconds 2) (addf .Values.minReadySeconds 5) | ceil | int -}}
{{- $terminating := min $max (mul $surge $batches) -}}
{{- $pods := add $max $surge $terminating -}}
{{- $importPool := int .Values.config.databaseImportPoolSize -}}
{{- $clients := mul $pods (add1 (add (mul 2 $pool) $importPool)) -}}
{{- $limit := int $database.maxConnections -}}
{{- $reserved := int $database.reservedConnections -}}
{{- $sum := printf "(%d of %s + %d that a rolling update starts + %d that terminate) x (2 x %d of config.databasePoolSize + %d of config.databaseImportPoolSize + 1)" $max $scale.by $surge $terminating $pool $importPool -}}
{{- if and (eq $database.mode "cnpg") $database.cnpg.pooler.enabled -}}
{{- with $database.cnpg.pooler -}}
{{- $taken := mul (int .instances) (int .maxClientConnections) -}}
{{- if gt $clients $taken -}}
{{- $faults = append $faults (printf "The pods may open %d connections, more than the %d that the pooler takes: %s, against database.cnpg.pooler.instances %d x maxClientConnections %d; lower the pods or their pools, or raise maxClientConnections." $clients $taken $sum (int .instances) (int .maxClientConnections)) -}}
{{- end -}}
{{- $opened := add (mul (int .instances) (int .defaultPoolSize)) 2 $reserved -}}
{{- if gt $opened $limit -}}
{{- $faults = append $faults (printf "The pooler may open %d connections, more than database.maxConnections %d: database.cnpg.pooler.instances %d x defaultPoolSize %d + 2 for migrations + %d of database.reservedConnections; lower defaultPoolSize, or raise database.maxConnections." $opened $limit (int .instances) (int .defaultPoolSize) $reserved) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- $opened := add $clients 2 $reserved -}}
{{- if gt $opened $limit -}}
{{- $faults = append $faults (printf "The pods may open %d connections, more than database.maxConnections %d: %s + 2 for migrations + %d of database.reservedConnections; lower the pods or their pools, or raise database.maxConnections together with the server's own limit." $opened $limit $sum $reserved) -}}
{{- end -}}
{{- end -}}
{{/* A replica has of each pod the pool for reads, and the connection that follows the feed; one of several may get all of them. */}}
{{- if (include "pricebook.database" . | fromYaml).read -}}
{{- $own := and (eq $database.mode "external") (int $database.external.read.maxConnections) -}}
{{- $readLimit := $own | default $limit | int -}}
{{- $opened := add (mul $pods (add1 $pool)) $reserved -}}
{{- if gt $opened $readLimit -}}
{{- $faults = append $faults (printf "The pods may open %d connections to the replica, more than %s %d: (%d of %s + %d that a rolling update starts + %d that terminate) x (%d of config.databasePoolSize + 1) + %d of database.reservedConnections; lower the pods or their pools, or raise the limit together with the replica's own." $opened (ternary "database.external.read.maxConnections" "database.maxConnections" (not (empty $own))) $readLimit $max $scale.by $surge $terminating $pool $reserved) -}}
{{- end -}}
{{- end -}}
{{- with $database.cnpg -}}
{{- if and (eq $database.mode "cnpg") .readReplicas (lt (int .instances) 2) -}}
{{- $faults = append $faults (printf "database.cnpg.readReplicas is true, but of database.cnpg.instances %d none is a standby; raise the second or leave out the first." (int .instances)) -}}
{{- end -}}
{{- end -}}

{{- with .Values.terminationGracePeriodSeconds -}}
{{- $needed := include "pricebook.stopSeconds" $ | int -}}
{{- if lt (int .) $needed -}}
{{- $faults = append $faults (printf "terminationGracePeriodSeconds is %d, less than the %d that a clean stop may take: preStopSeconds %d + config.drainSeconds %s + config.gracefulTimeoutSeconds %d + 10 to close; raise it, or set it to null to have it computed." (int .) $needed (int $.Values.preStopSeconds) (include "pricebook.number" $.Values.config.drainSeconds) (int $.Values.config.gracefulTimeoutSeconds)) -}}
{{- end -}}
{{- end -}}

{{- if ge (int .Values.minReadySeconds) (int .Values.progressDeadlineSeconds) -}}
{{- $faults = append $faults (printf "minReadySeconds is %d, and Kubernetes wants it below progressDeadlineSeconds %d; lower the first or raise the second." (int .Values.minReadySeconds) (int .Values.progressDeadlineSeconds)) -}}
{{- end -}}
{{- if ge (float64 .Values.config.migrationWaitSeconds) (float64 .Values.progressDeadlineSeconds) -}}
{{- $faults = append $faults (printf "config.migrationWaitSeconds is %s, and a rollout counts as failed after progressDeadlineSeconds %d; lower the first or raise the second." (include "pricebook.number" .Values.config.migrationWaitSeconds) (int .Values.progressDeadlineSeconds)) -}}
{{- end -}}

{{- $service := .Values.service -}}
{{- $balanced := list "LoadBalancer" -}}
{{- $types := dict "nodePort" (list "LoadBalancer" "NodePort") "externalTrafficPolicy" (list "LoadBalancer" "NodePort") "loadBalancerClass" $balanced "loadBalancerSourceRanges" $balanced -}}
{{- range $key, $fit := $types -}}
{{- if and (index $service $key) (not (has $service.type $fit)) -}}
{{- $faults = append $faults (printf "service.%s is set while service.type is %s, and Kubernetes takes it with %s only; remove it or change service.type." $key $service.type (join " and " $fit)) -}}
{{- end -}}
{{- end -}}

{{- with .Values.serviceMonitor -}}
{{- if and .enabled .scrapeTimeout (gt (include "pricebook.milliseconds" .scrapeTimeout | int) (include "pricebook.milliseconds" .interval | int)) -}}
{{- $faults = append $faults (printf "serviceMonitor.scrapeTimeout is %s, longer than serviceMonitor.interval %s; shorten the first or lengthen the second." .scrapeTimeout .interval) -}}
{{- end -}}
{{- end -}}

{{- $buckets := list 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 -}}
{{- if not (has (float64 .Values.slo.latencyThresholdSeconds) $buckets) -}}
{{- $faults = append $faults (printf "slo.latencyThresholdSeconds is %s, which is no bucket of pricebook_request_seconds; take one of 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10." (include "pricebook.number" .Values.slo.latencyThresholdSeconds)) -}}
{{- end -}}

{{- $rules := .Files.Get "files/rules.yaml" -}}
{{- range .Values.prometheusRule.disabledAlerts -}}
{{- if not (contains (printf "alert: %s\n" .) $rules) -}}
{{- $faults = append $faults (printf "prometheusRule.disabledAlerts names %s, which is no alert of this chart; docs/runbooks has one file for each that is." .) -}}
{{- end -}}
{{- end -}}

{{- with .Values.ingress -}}
{{- if and .enabled (not .hosts) -}}
{{- $faults = append $faults "ingress.enabled is true, but ingress.hosts is empty; name at least one host, such as [{host: prices.example.com}]." -}}
{{- end -}}
{{- end -}}
{{- with .Values.httpRoute -}}
{{- if and .enabled (not .parentRefs) -}}
{{- $faults = append $faults "httpRoute.enabled is true, but httpRoute.parentRefs is empty; name the Gateway, such as [{name: public, namespace: gateways}]." -}}
{{- end -}}
{{- end -}}
{{- with .Values.tracing -}}
{{- if and .enabled (not .endpoint) -}}
{{- $faults = append $faults "tracing.enabled is true, but tracing.endpoint is empty; set it to your collector, such as http://otel-collector.observability:4318." -}}
{{- end -}}
{{- end -}}

{{- with $database.bundled -}}
{{- $given := list -}}
{{- range $role, $password := .passwords -}}{{- if $password -}}{{- $given = append $given $role -}}{{- end -}}{{- end -}}
{{- with $given -}}
{{- if ne $database.mode "bundled" -}}
{{- $faults = append $faults (printf "database.bundled.passwords.%s is set while database.mode is %s, and passwords in values are for bundled only; remove it and name a Secret instead." (first .) $database.mode) -}}
{{- else if $database.bundled.existingSecret -}}
{{- $faults = append $faults (printf "database.bundled.passwords.%s and database.bundled.existingSecret %s are both set; keep one of them." (first .) $database.bundled.existingSecret) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- range $name := list "password" "url" -}}
{{- if hasKey $database.external $name -}}
{{- $faults = append $faults (printf "database.external.%s is set, but passwords do not belong in values; put it into a Secret and name that in database.external.existingSecret." $name) -}}
{{- end -}}
{{- end -}}
{{- if eq $database.mode "external" -}}
{{- with $database.external -}}
{{- if not .existingSecret -}}
{{- $faults = append $faults (printf "database.mode is external, but database.external.existingSecret is empty; name the Secret that holds %s." (ternary (printf "the password of %s under the key %s" .user .passwordKey) (printf "the database's URL under the key %s" .urlKey) (not (empty .host)))) -}}
{{- end -}}
{{- if and .read.host (not .host) -}}
{{- $faults = append $faults "database.external.read.host is set, but database.external.host is empty, so the Secret has whole URLs; put the replica's there too, and name its key in database.external.read.urlKey." -}}
{{- end -}}
{{- if and .read.urlKey .host -}}
{{- $faults = append $faults "database.external.read.urlKey is set, but so is database.external.host, and the Secret has a password alone; set database.external.read.host instead." -}}
{{- end -}}
{{- if .migration.existingSecret -}}
{{- if not (or .host .servingRole) -}}
{{- $faults = append $faults "database.external.migration.existingSecret is set, but database.external.servingRole is empty, so migrations would not know whom to give rights; set it to the role of the serving URL." -}}
{{- end -}}
{{- $role := (include "pricebook.database" $ | fromYaml).servingRole -}}
{{- if not (regexMatch "^([a-z_][a-z0-9_]{0,62})?$" $role) -}}
{{- $faults = append $faults (printf "database.external.user is %s, and migrations give rights to a role of at most 63 lower-case letters, digits and _ only; rename it, or name another role that it is a member of in database.external.servingRole." $role) -}}
{{- end -}}
{{- else -}}
{{- $unused := dict "migration.host" .migration.host "migration.port" (int .migration.port) "migration.user" (ne .migration.user "pricebook" | ternary .migration.user "") "servingRole" .servingRole -}}
{{- range $name, $value := $unused -}}
{{- if $value -}}
{{- $faults = append $faults (printf "database.external.%s is %v, but database.external.migration.existingSecret is empty; name the Secret of the role that owns the schema." $name $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if $faults -}}
{{- fail (printf "\n%s" (join "\n" $faults)) -}}
{{- end -}}
{{- end -}}

{{/* A duration as Prometheus writes it. */}}
{{- define "pricebook.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|[smhd])" . -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int) (index $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Pods that a rolling update starts before it ends others: a number, or a share of the replicas rounded up. */}}
{{- define "pricebook.surge" -}}
{{- if kindIs "string" .maxSurge -}}
{{- divf (mulf .replicas (trimSuffix "%" .maxSurge)) 100 | ceil | int -}}
{{- else -}}
{{- int .maxSurge -}}
{{- end -}}
{{- end -}}
